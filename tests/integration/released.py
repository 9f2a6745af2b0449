"""Rows as each released revision had them, in SQL that both databases read.

Written out and not made by the code: a later change of the code must not change history. A revision
that is released adds its own tables and columns here.
"""

from collections.abc import Mapping

IDS = {
    name: f"00000000000070008000{number:012x}"
    for number, name in enumerate(
        ("project", "key", "class", "snapshot", "image", "tuning", "version", "move", "prediction",
         "batch", "running", "gate", "feedback", "examination", "finding", "trial"),
        start=1,
    )
}  # fmt: skip
TIME = "2026-03-29 01:30:00.123456"

# By the revision that brought the table. {image} and the like are digests of stored blobs.
TABLES: Mapping[str, Mapping[str, str]] = {
    "0001": {
        "projects": "INSERT INTO projects (id, name, name_key, view, keep_images, created_at)"
        """ VALUES ('{project}', 'Cap', 'cap', '{{"resize": "fit"}}', 'all', '{time}')""",
        "api_keys": "INSERT INTO api_keys (id, name, prefix, sha256, role, project_id, created_at)"
        " VALUES ('{key}', 'line 3', 'sl_abc', '{digest}', 'operator', '{project}', '{time}')",
        "classes": "INSERT INTO classes"
        " (id, project_id, position, name, name_key, prompt_name, role, created_at)"
        " VALUES ('{class}', '{project}', 0, '傷', '傷', 'scratch', 'ng', '{time}')",
        "snapshots": "INSERT INTO snapshots"
        " (id, project_id, digest, classes, image_count, created_at)"
        """ VALUES ('{snapshot}', '{project}', '{snapshot_digest}', '{classes}', 1, '{time}')""",
        "images": "INSERT INTO images (id, project_id, class_id, sha256, file_name, format, width,"
        """ height, size_bytes, split, "group", created_at, deleted_at) VALUES ('{image}',"""
        " '{project}', '{class}', '{photograph}', 'a.png', 'png', 40, 40, 4000, 'train', 'a',"
        " '{time}', '{time}')",
        "tunings": "INSERT INTO tunings (id, project_id, snapshot_id, state, recipe, seed, view,"
        " backbone, attempt, lease_owner, lease_until, cancel_requested, progress, created_at,"
        " queued_at, started_at, finished_at) VALUES ('{tuning}', '{project}', '{snapshot}',"
        """ 'succeeded', '{{"lr": 0.1}}', 1099511627776, '{{}}', 'starter', 1, NULL, NULL, false,"""
        """ '{{"done": 1}}', '{time}', '{time}', '{time}', '{time}'),"""
        " ('{running}', '{project}', '{snapshot}', 'running', '{{}}', 1, '{{}}', 'starter', 1,"
        " 'worker 1', '{time}', false, NULL, '{time}', '{time}', '{time}', NULL)",
        "model_versions": "INSERT INTO model_versions (id, project_id, number, tuning_id, digest,"
        " artifact_sha256, backbone, backbone_digest, classes, metrics, created_at)"
        " VALUES ('{version}', '{project}', 1, '{tuning}', '{artifact_digest}', '{artifact}',"
        " 'starter', '{backbone}', '{classes}', '{{}}', '{time}')",
        "snapshot_images": "INSERT INTO snapshot_images"
        """ (snapshot_id, position, image_id, sha256, label, split, "group")"""
        " VALUES ('{snapshot}', 0, '{image}', '{photograph}', 0, 'train', 'a')",
        "alias_moves": "INSERT INTO alias_moves"
        " (id, project_id, alias, kind, to_version_id, reason, moved_at)"
        " VALUES ('{move}', '{project}', 'production', 'promote', '{version}', 'good', '{time}')",
        "aliases": "INSERT INTO aliases (project_id, name, version_id, moved_at)"
        " VALUES ('{project}', 'production', '{version}', '{time}')",
        "predictions": "INSERT INTO predictions (id, project_id, model_version_id, model_number,"
        " model_digest, part_id, captured_at, decision, label, probability, probabilities,"
        " prediction_set, timings_ms, image_sha256, image_bytes, created_at)"
        " VALUES ('{prediction}', '{project}', '{version}', 1, '{artifact_digest}', 'p 1',"
        """ '{time}', 'ng', '傷', 0.30000000000000004, '[]', '["傷"]', '{{"total": 21.5}}',"""
        " '{photograph}', 4000, '{time}')",
    },
    "0002": {
        "batches": "INSERT INTO batches (id, project_id, model_version_id, state, image_count,"
        " attempt, losses, cancel_requested, created_at, queued_at, finished_at) VALUES ('{batch}',"
        " '{project}', '{version}', 'succeeded', 1, 1, 0, false, '{time}', '{time}', '{time}')",
        "batch_images": "INSERT INTO batch_images (batch_id, position, name, sha256)"
        " VALUES ('{batch}', 0, 'a.png', '{photograph}')",
        "batch_parts": "INSERT INTO batch_parts (batch_id, position, count, sha256)"
        " VALUES ('{batch}', 0, 1, '{part}')",
    },
    "0003": {
        "serving": "UPDATE serving SET revision = 5, deleted = 2",
        "projects": "UPDATE projects SET revision = 5",
    },
    "0004": {
        "audit_entries": "INSERT INTO audit_entries (sequence, at, actor, action, kind, object_id,"
        " after, mac) VALUES (1, '{time}', 'me', 'project.create', 'project', '{project}',"
        """ '{{"name":"Cap"}}', '{digest}')""",
        "audit_head": "UPDATE audit_head SET sequence = 1, mac = '{digest}', key_id = 'abc'",
    },
    "0005": {
        "projects": """UPDATE projects SET retention = '{{"predictions_days":365}}'""",
    },
    "0006": {
        "projects": """UPDATE projects SET decisions = '{{"alpha":0.05}}'""",
        "predictions": "UPDATE predictions SET reason = 'certain'",
    },
    "0007": {
        "images": """UPDATE images SET pixels = '{{"mean": 120.5}}'""",
        "tunings": """UPDATE tunings SET findings = '[]' WHERE id = '{tuning}'""",
        "examinations": "INSERT INTO examinations (id, project_id, tuning_id, state, digest,"
        " image_count, view, backbone, attempt, losses, cancel_requested, created_at, queued_at,"
        " finished_at) VALUES ('{examination}', '{project}', '{tuning}', 'succeeded',"
        """ '{snapshot_digest}', 1, '{{}}', 'starter', 1, 0, false, '{time}', '{time}',"""
        " '{time}')",
        "findings": "INSERT INTO findings (id, examination_id, kind, severity, content)"
        """ VALUES ('{finding}', '{examination}', 'blur', 'warning', '{{"images": []}}')""",
    },
    "0008": {
        "projects": """UPDATE projects SET gates = '{{"margin":0.03}}', shadow = true,"""
        """ frozen = '{{"reason":"audit"}}'""",
        "alias_moves": "UPDATE alias_moves SET automatic = true, override = 'the line stands'",
        "gate_runs": "INSERT INTO gate_runs (id, project_id, version_id, state, attempt, losses,"
        " cancel_requested, result, created_at, queued_at, finished_at) VALUES ('{gate}',"
        """ '{project}', '{version}', 'succeeded', 1, 0, false, '{{"images":1}}', '{time}',"""
        " '{time}', '{time}')",
        "shadow_answers": "INSERT INTO shadow_answers (prediction_id, project_id, version_id,"
        " decision, label, probability, probabilities, differs) VALUES ('{prediction}',"
        " '{project}', '{version}', 'ok', 'good', 0.7, '[]', true)",
        "feedback": "INSERT INTO feedback (id, prediction_id, project_id, label, note, given_at)"
        " VALUES ('{feedback}', '{prediction}', '{project}', '傷', 'seen', '{time}')",
        "reviews": "INSERT INTO reviews (prediction_id, project_id, action, label, image_id,"
        " reviewed_at) VALUES ('{prediction}', '{project}', 'keep', '傷', '{image}', '{time}')",
    },
    "0009": {
        "tunings": """UPDATE tunings SET search = '{{"budget": {{"minutes": 10}}}}'"""
        " WHERE id = '{tuning}'",
        "search_trials": "INSERT INTO search_trials (id, project_id, tuning_id, state, number,"
        " params, folds, result, hits, attempt, losses, cancel_requested, created_at, queued_at,"
        " started_at, finished_at) VALUES ('{trial}', '{project}', '{tuning}', 'succeeded', 0,"
        """ '{{"lr": 0.2}}', '[0.5]', '{{"state": "complete", "macro": 0.5}}', '01', 1, 0, false,"""
        " '{time}', '{time}', '{time}', '{time}')",
    },
    "0010": {
        "predictions": "UPDATE predictions SET part_id = 'P-1', station = 'S-1'",
    },
}


def statements(revision: str, values: Mapping[str, str]) -> list[str]:
    """Return what fills every table of a revision.

    Args:
        revision: a released one.
        values: digests of blobs: `photograph`, `part`, `artifact`; and what the artifact says.
    """
    known = IDS | {"time": TIME, "digest": "ab" * 32} | dict(values)
    return [
        statement.format(**known)
        for release, tables in sorted(TABLES.items())
        if release <= revision
        for statement in tables.values()
    ]
