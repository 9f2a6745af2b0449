"""What a project asks of its decisions: validated here, applied by `models.decision`."""

from sqlalchemy.orm import Session

from app.core.tables import Project
from app.projects import repository
from models.classes import Role
from models.trust.policy import (
    DEFAULT_POLICY,
    Budget,
    DecisionPolicy,
    check_budget,
    check_names,
)


def policy_of(project: Project) -> DecisionPolicy:
    """Return what the project asks of decisions."""
    stored = project.decisions
    return DecisionPolicy.model_validate(stored) if stored else DEFAULT_POLICY


def set_policy(session: Session, project: Project, policy: DecisionPolicy) -> None:
    """Have the project's decisions made by `policy`.

    A budget is checked against the version in production, else against what is labelled; where
    nothing is, there is nothing to check it against.

    Raises:
        BadInput: costs of a class that is not there, or a budget that cannot be kept.
    """
    production = repository.production(session, project.id)
    names = [row.name for row in repository.classes(session, [project.id])]
    if production is not None:
        names += [spec["name"] for spec in production.classes if spec["name"] not in names]
    check_names(policy, names)
    if policy.budget != Budget():
        if production is not None:
            trust = production.metrics.get("trust") or {}
            whose = f"version {production.number}, in production, was calibrated on"
            check_budget(policy.budget, _known(trust.get("calibration_groups")), whose)
        elif groups := repository.training_groups(session, project.id):
            check_budget(policy.budget, groups, "there are")
    project.decisions = policy.model_dump(mode="json", exclude_defaults=True) or None


def rename_class(project: Project, before: str, after: str) -> None:
    """Let the costs of a class count under its new name too; its versions go by the old one."""
    policy = policy_of(project)
    if before == after or before not in policy.costs:
        return
    costs = policy.costs | {after: policy.costs[before]}
    renamed = policy.model_copy(update={"costs": costs})
    project.decisions = renamed.model_dump(mode="json", exclude_defaults=True)


def _known(groups: dict[Role, int] | None) -> dict[Role, int]:
    """Return the groups of each role; none of either for a version from before there were rules."""
    return {"ok": 0, "ng": 0} if groups is None else groups
