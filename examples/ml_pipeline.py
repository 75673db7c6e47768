#!/usr/bin/env python3
"""A machine-learning pipeline that really trains: preprocess, train, validate, deploy.

The data are the 1,797 handwritten digits that scikit-learn ships. A worker in this process serves
the four stages; each takes the result of the one before as `input`. Data and model travel as
artifacts of their tasks, the results only name them.

    maos serve &
    pip install -r examples/requirements.txt
    python examples/ml_pipeline.py --base-url http://127.0.0.1:8000 --model digits.model
"""

from __future__ import annotations

import argparse
import asyncio
import io
import pickle
from pathlib import Path
from typing import Any

import numpy
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from maos import Failed, MAOSClient, Task, Worker

CAPABILITY = "machine_learning"
STAGES = ["preprocess", "train", "validate", "deploy"]
# A model that does worse is not deployed.
ACCURACY_MIN = 0.93


async def fetch(client: MAOSClient, place: dict[str, str]) -> Any:
    """Load what an earlier stage has kept."""
    kept = await client.get_artifact(place["task_id"], place["artifact"])
    # The artifacts of this pipeline are its own: nobody else's pickles are loaded.
    return pickle.loads(kept)


async def keep(task: Task, name: str, thing: Any) -> dict[str, str]:
    """Keep something with the task, and say where it is."""
    await task.keep_artifact(name, pickle.dumps(thing), "application/x-pickle")
    return {"task_id": task.id, "artifact": name}


async def preprocess(client: MAOSClient, task: Task, given: dict[str, Any]) -> dict[str, Any]:
    """Split the data into a part to learn from and a part to be asked about."""
    digits = load_digits()
    parts = train_test_split(
        digits.data, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    task.log(f"{len(parts[0])} digits to learn from, {len(parts[1])} to be asked about")
    return {"data": await keep(task, "digits.pickle", parts), "rows": len(digits.target)}


async def train(client: MAOSClient, task: Task, given: dict[str, Any]) -> dict[str, Any]:
    """Fit a model to the first part; it runs beside the worker's conversation."""
    learn, _, answers, _ = await fetch(client, given["data"])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    task.progress(0.1, "fitting")
    await asyncio.to_thread(model.fit, learn, answers)
    return {**given, "model": await keep(task, "model.pickle", model)}


async def validate(client: MAOSClient, task: Task, given: dict[str, Any]) -> dict[str, Any]:
    """Ask the model about the second part; one that does badly goes no further."""
    _, asked, _, answers = await fetch(client, given["data"])
    model = await fetch(client, given["model"])
    accuracy = float(accuracy_score(answers, model.predict(asked)))
    if accuracy < ACCURACY_MIN:
        raise Failed(f"accuracy {accuracy:.3f} is below {ACCURACY_MIN}", permanent=True)
    return {**given, "accuracy": accuracy}


async def deploy(client: MAOSClient, task: Task, given: dict[str, Any]) -> dict[str, Any]:
    """Keep the model and what it was measured at with the last stage, for whoever uses it."""
    model = await fetch(client, given["model"])
    return {
        "model": await keep(task, "digits.model", model),
        "accuracy": given["accuracy"],
        "rows": given["rows"],
    }


def worker(client: MAOSClient) -> Worker:
    """Make a worker that serves all stages."""
    stages = {stage.__name__: stage for stage in (preprocess, train, validate, deploy)}
    serving = Worker(concurrency=2)

    @serving.task(capabilities=[CAPABILITY], agent_type="machine_learner")
    async def learn(task: Task, **parameters: Any) -> dict[str, Any]:
        stage = stages.get(parameters.get("stage", ""))
        if stage is None:
            raise Failed(f"`stage` must be one of {', '.join(stages)}", permanent=True)
        return await stage(client, task, parameters.get("input") or {})

    return serving


async def run(base_url: str, model_file: Path) -> dict[str, Any]:
    """Submit the pipeline, work on it, and fetch the model."""
    stop = asyncio.Event()
    async with MAOSClient(base_url) as client:
        serving = asyncio.create_task(worker(client).serve(base_url, stop))
        try:
            result = await client.run_task(
                "Recognise digits",
                parameters={"stages": STAGES},
                decomposition_strategy="pipeline",
                required_capabilities=[CAPABILITY],
                resource_requirements={"cpu_cores": 1, "memory_mb": 512},
                tags=["example", "machine_learning"],
            )
        finally:
            stop.set()
            await serving
        place = result["model"]
        await client.get_artifact(place["task_id"], place["artifact"], model_file)
    return dict(result)


def main() -> None:
    """Run the pipeline, then use what it made."""
    parser = argparse.ArgumentParser(description="Train a model with MAOS.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", type=Path, default=Path("digits.model"))
    given = parser.parse_args()
    result = asyncio.run(run(given.base_url, given.model))
    model = pickle.load(io.BytesIO(given.model.read_bytes()))
    shown = load_digits()
    guessed = model.predict(numpy.asarray(shown.data[:5]))
    print(
        f"accuracy {result['accuracy']:.3f} on digits it had not seen; {given.model} is the model"
    )
    print(f"it takes the first five digits for {[int(digit) for digit in guessed]}")


if __name__ == "__main__":
    main()
