"""x"""
from benchmarks.serving.stand import Bench, Outcome
def run(bench: Bench) -> Outcome:
    """x"""
    return Outcome({}, [])
