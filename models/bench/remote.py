"""Runs cells that were sent from elsewhere."""

from models.bench.data import BenchSet
from models.bench.message import Answer, BenchTask, Failure, Plan
from models.bench.runner import load
from models.bench.sources import read_source
from models.bench.trial import Bench, load_set, run_cell
from models.errors import Refused, ShotlineError
from models.features import FeatureStore


class RemoteBench:
    """Keeps the backbone and the data of the last plan: cells of one run follow each other.

    Args:
        store: of image features.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._plan: Plan | None = None
        self._bench: Bench | None = None

    def answer(self, task: BenchTask) -> Answer:
        """Run the cell; whatever the error tree says against it is part of the answer."""
        try:
            rows = run_cell(self._prepare(task.plan), task.cell)
        except ShotlineError as error:
            failure = Failure(problem=error.problem, fix=error.fix)
            return Answer(number=task.number, failure=failure)
        return Answer(number=task.number, rows=rows)

    def _prepare(self, plan: Plan) -> Bench:
        if self._bench is None or plan != self._plan:
            self._bench = None  # two backbones may not fit into memory
            backbone = load(plan.backbone)
            sets = [read_source(ref) for ref in plan.sources]
            for data in sets:
                _check_same(data, plan)
            loaded = {data.name: load_set(data, backbone, self._store) for data in sets}
            self._plan, self._bench = plan, Bench(backbone, loaded)
        return self._bench


def _check_same(data: BenchSet, plan: Plan) -> None:
    wanted = plan.digests.get(data.name)
    if data.digest != wanted:
        raise Refused(
            f"The data set {data.name!r} has the digest {data.digest} here; {wanted} is wanted.",
            fix="Give every worker the same images, labels and groups under the same paths.",
            field=data.name,
        )
