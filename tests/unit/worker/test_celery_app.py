"""What the worker's Celery is told: no message is lost, and none is taken before its turn."""

from app.core.settings import TuningSettings
from worker.celery_app import app


def test_a_message_stays_until_its_tuning_has_ended() -> None:
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    limit = app.conf.task_time_limit
    assert limit > TuningSettings().time_limit_seconds  # the supervisor's limit comes first
    assert app.conf.broker_transport_options["visibility_timeout"] > limit


def test_one_tuning_at_a_time() -> None:
    assert app.conf.worker_concurrency == app.conf.worker_prefetch_multiplier == 1
    assert app.conf.worker_pool_start_method == "spawn"


def test_messages_are_json_and_nothing_is_answered() -> None:
    assert app.conf.task_serializer == "json"
    assert app.conf.accept_content == ["json"]
    assert app.conf.result_backend is None
