# ruff: noqa: T201 - what an example has to say goes to the terminal
"""Ask for decisions on photographs, as a vision PC on the line would.

    export SHOTLINE_URL=http://127.0.0.1:8000 SHOTLINE_KEY=sl_…
    python examples/python/predict.py --project "Housing, top side" --deadline 2 new/*.jpg

Needs `pip install httpx2` and nothing else. One line for each photograph: its name, the decision,
the label, the probability, the version that answered, the reason. The exit code is 0 where every
decision is `ok`, else 1; 2 where one could not be decided on: no answer in time, no file, no key.
"""

import argparse
import asyncio
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx2

# Still at work on the same question; not available now; a proxy's own errors.
TRY_AGAIN = {409, 502, 503}
PAUSE = 0.1
# Seconds for the way to the gateway and back. What it is given for its own work is less than what
# is waited for its answer, else every late answer would look like a broken connection.
NETWORK = 0.05


class NoDecision(Exception):
    """No answer in time, or one that trying again does not change: the part is not decided on."""


async def decide(
    client: httpx2.AsyncClient, project: str, photograph: bytes, *, image_id: str, deadline: float
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
    said = {
        "Content-Type": "image/*",
        "Idempotency-Key": str(uuid.uuid4()),
        "Image-Id": image_id,
    }
    headers = httpx2.Headers(said, encoding="utf-8")  # names of files are in any language
    give_up_at = time.monotonic() + deadline
    problem = "the deadline is too short"
    while (left := give_up_at - time.monotonic()) > NETWORK:
        pause = PAUSE
        try:
            # For the whole try: a client's own time-outs count for each of its steps anew.
            async with asyncio.timeout(left):
                answer = await client.post(
                    f"/v1/projects/{project}/predict",
                    content=photograph,
                    headers=headers,
                    # The gateway does not begin with what would come too late.
                    params={"deadline_ms": max(1, int(1000 * (left - NETWORK)))},
                )
        except TimeoutError:
            problem = f"no answer within {deadline:g} s"
        except httpx2.TransportError as error:
            problem = str(error) or type(error).__name__
        else:
            if answer.is_success:
                decision: dict[str, Any] = answer.json()
                return decision
            problem = describe(answer)
            if answer.status_code not in TRY_AGAIN:
                break
            pause = retry_after(answer)
        await asyncio.sleep(min(pause, max(0.0, give_up_at - time.monotonic())))
    raise NoDecision(problem)


def retry_after(answer: httpx2.Response) -> float:
    """Return the seconds that the gateway asks to wait; a proxy may name a date instead."""
    try:
        return float(answer.headers.get("Retry-After", PAUSE))
    except ValueError:
        return PAUSE


def describe(answer: httpx2.Response) -> str:
    """Return what an error says: it is problem+json, unless a proxy made it."""
    try:
        problem = answer.json()
        return f"{answer.status_code}: {problem['detail']} {problem['fix']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code}: {answer.text[:200]}"


async def project_id(client: httpx2.AsyncClient, name: str) -> str:
    """Return the id of the project of that name."""
    answer = await client.get("/v1/projects", params={"name": name})
    if answer.is_error:
        raise NoDecision(describe(answer))
    found: list[dict[str, str]] = answer.json()["items"]
    if not found:
        raise NoDecision(f"no project is called {name!r}")
    return found[0]["id"]


async def ask(photographs: list[Path], name: str, *, key: str, deadline: float) -> list[str]:
    """Print the decision on each photograph and return them."""
    # One client for all: the connection stays open, which saves milliseconds on each request.
    async with httpx2.AsyncClient(
        base_url=os.environ.get("SHOTLINE_URL", "http://127.0.0.1:8000"),
        headers={"Authorization": f"Bearer {key}"},
    ) as client:
        project = await project_id(client, name)
        decisions = []
        for path in photographs:
            photograph = path.read_bytes()
            answer = await decide(
                client, project, photograph, image_id=path.name, deadline=deadline
            )
            decisions.append(answer["decision"])
            print(
                f"{path.name}\t{answer['decision']}\t{answer['label']}"
                f"\t{answer['probability']:.4f}\tversion {answer['model']['version']}"
                f"\t{answer['reason']}"
            )
        return decisions


def main() -> int:
    """Read the command line and ask."""
    parser = argparse.ArgumentParser(description="Ask for decisions on photographs.")
    parser.add_argument("photographs", nargs="+", type=Path)
    parser.add_argument("--project", required=True, help="its name")
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds for each photograph")
    options = parser.parse_args()
    key = os.environ.get("SHOTLINE_KEY", "")
    if not (key and key.isascii()):
        parser.error("SHOTLINE_KEY has to hold an API key")  # exit code 2
    try:
        decisions = asyncio.run(
            ask(options.photographs, options.project, key=key, deadline=options.deadline)
        )
    except (NoDecision, httpx2.TransportError, OSError) as error:
        print(f"No decision: {error}", file=sys.stderr)
        return 2
    return 0 if set(decisions) == {"ok"} else 1


if __name__ == "__main__":
    sys.exit(main())
