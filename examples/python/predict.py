# ruff: noqa: T201 - what an example has to say goes to the terminal
"""Ask for decisions on photographs, as a vision PC on the line would.

    export SHOTLINE_URL=http://127.0.0.1:8000 SHOTLINE_KEY=sl_…
    python examples/python/predict.py --project "Housing, top side" --deadline 2 new/*.jpg

Needs `pip install httpx2` and nothing else. One line for each photograph: its name, the decision,
the label, the probability, the version that answered. The exit code is 0 where every decision is
`ok`, else 1; 2 where no answer came in time.
"""

import argparse
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx2

# Still at work on the same question; too many questions; not available now; a proxy's own error.
TRY_AGAIN = {409, 429, 502, 503}
PAUSE = 0.1


class NoDecision(Exception):
    """No answer in time, or one that trying again does not change: the part is not decided on."""


def decide(
    client: httpx2.Client, project: str, photograph: bytes, *, image_id: str, deadline: float
) -> dict[str, Any]:
    """Return the decision on one photograph.

    The same Idempotency-Key goes with every try: where an answer was made and lost on its way, the
    gateway gives that answer again and records no second prediction.

    Args:
        client: with the address and the key of the gateway.
        project: its id.
        photograph: the bytes of a JPEG, PNG, BMP, TIFF or WebP file.
        image_id: comes back in the answer, and is kept with it.
        deadline: seconds from now, for all tries together.

    Raises:
        NoDecision: no answer by then, or a request that cannot be answered.
    """
    headers = {
        "Content-Type": "image/*",
        "Idempotency-Key": str(uuid.uuid4()),
        "Image-Id": image_id,
    }
    give_up_at = time.monotonic() + deadline
    problem = "the deadline is too short"
    while (left := give_up_at - time.monotonic()) > 0:
        pause = PAUSE
        try:
            answer = client.post(
                f"/v1/projects/{project}/predict",
                content=photograph,
                headers=headers,
                # The gateway does not begin with what would come too late.
                params={"deadline_ms": max(1, int(1000 * left))},
                timeout=left,
            )
        except httpx2.TransportError as error:
            problem = str(error) or type(error).__name__
        else:
            if answer.is_success:
                decision: dict[str, Any] = answer.json()
                return decision
            problem = describe(answer)
            if answer.status_code not in TRY_AGAIN:
                break
            pause = float(answer.headers.get("Retry-After", PAUSE))
        time.sleep(min(pause, max(0.0, give_up_at - time.monotonic())))
    raise NoDecision(problem)


def describe(answer: httpx2.Response) -> str:
    """Return what an error says: it is problem+json, unless a proxy made it."""
    try:
        problem = answer.json()
        return f"{answer.status_code}: {problem['detail']} {problem['fix']}"
    except (ValueError, KeyError):
        return f"{answer.status_code}: {answer.text[:200]}"


def project_id(client: httpx2.Client, name: str) -> str:
    """Return the id of the project of that name."""
    answer = client.get("/v1/projects", params={"name": name})
    if answer.is_error:
        raise NoDecision(describe(answer))
    found: list[dict[str, str]] = answer.json()["items"]
    if not found:
        raise NoDecision(f"no project is called {name!r}")
    return found[0]["id"]


def main() -> int:
    """Read the command line and ask."""
    parser = argparse.ArgumentParser(description="Ask for decisions on photographs.")
    parser.add_argument("photographs", nargs="+", type=Path)
    parser.add_argument("--project", required=True, help="its name")
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds for each photograph")
    options = parser.parse_args()
    # One client for all: the connection stays open, which saves milliseconds on each request.
    with httpx2.Client(
        base_url=os.environ.get("SHOTLINE_URL", "http://127.0.0.1:8000"),
        headers={"Authorization": f"Bearer {os.environ['SHOTLINE_KEY']}"},
    ) as client:
        try:
            project = project_id(client, options.project)
            decisions = []
            for path in options.photographs:
                answer = decide(
                    client,
                    project,
                    path.read_bytes(),
                    image_id=path.name,
                    deadline=options.deadline,
                )
                decisions.append(answer["decision"])
                print(
                    f"{path.name}\t{answer['decision']}\t{answer['label']}"
                    f"\t{answer['probability']:.4f}\tversion {answer['model']['version']}"
                )
        except (NoDecision, httpx2.TransportError) as error:
            print(f"No decision: {error}", file=sys.stderr)
            return 2
    return 0 if set(decisions) == {"ok"} else 1


if __name__ == "__main__":
    sys.exit(main())
