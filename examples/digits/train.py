"""Train a small neural network on the UCI handwritten digits and keep what it learnt.

    train.py SETTINGS DIRECTORY

Continues from DIRECTORY/checkpoint.pickle where there is one, trains `epochs_per_run` more epochs,
saves a checkpoint after each, and writes DIRECTORY/results/metrics.json and confusion.png.
"""

import json
import os
import pickle
import sys
import tempfile
import time
from pathlib import Path

scratch = Path(os.environ.get("MOORAGE_SCRATCH") or tempfile.mkdtemp())
os.environ["MPLCONFIGDIR"] = str(scratch)

import matplotlib  # noqa: E402 (its cache must go to scratch)
import numpy as np  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, f1_score  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def enlarge(images, labels, pixels, directory):
    """Each 8x8 image moved by up to `pixels` in both directions, as a file in scratch."""
    moves = [(y, x) for y in range(-pixels, pixels + 1) for x in range(-pixels, pixels + 1)]
    shape = (len(moves) * len(images), 64)
    bigger = np.memmap(directory / "train.dat", dtype=np.float32, mode="w+", shape=shape)
    for number, move in enumerate(moves):
        moved = np.roll(images.reshape(-1, 8, 8), move, axis=(1, 2))
        bigger[number * len(images) : (number + 1) * len(images)] = moved.reshape(-1, 64)
    return bigger, np.tile(labels, len(moves))


def save(path, content):
    """Replace the file in one step: a job killed here leaves the old checkpoint whole."""
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        pickle.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def resume_or_start(path, settings):
    """The model and the number of epochs it has seen."""
    if path.exists():
        state = pickle.loads(path.read_bytes())  # our own file, from our own volume
        print(f"resuming after epoch {state['epochs']}", flush=True)
        return state["model"], state["epochs"]
    print("starting from nothing", flush=True)
    model = MLPClassifier(
        hidden_layer_sizes=(settings["hidden_units"],),
        learning_rate_init=settings["learning_rate"],
        batch_size=settings["batch_size"],
        random_state=settings["seed"],
    )
    return model, 0


def main(settings_file, directory):
    """See the module's docstring."""
    settings = json.loads(Path(settings_file).read_text())
    directory = Path(directory)
    results = directory / "results"
    results.mkdir(exist_ok=True)

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        (digits.data / 16.0).astype(np.float32),
        digits.target,
        test_size=settings["test_share"],
        random_state=settings["seed"],
        stratify=digits.target,
    )
    x_train, y_train = enlarge(x_train, y_train, settings["shifts"], scratch)
    print(f"{len(x_train)} training images in {scratch}, {len(x_test)} to test", flush=True)

    began = time.perf_counter()
    checkpoint = directory / "checkpoint.pickle"
    model, done = resume_or_start(checkpoint, settings)
    for epoch in range(done + 1, done + settings["epochs_per_run"] + 1):
        model.partial_fit(x_train, y_train, classes=np.arange(10))
        save(checkpoint, {"model": model, "epochs": epoch})
        accuracy = accuracy_score(y_test, model.predict(x_test))
        print(f"epoch {epoch:3}  loss {model.loss_:.4f}  test accuracy {accuracy:.4f}", flush=True)

    predicted = model.predict(x_test)
    metrics = {
        "epochs": epoch,
        "resumed_after": done,
        "train_images": len(x_train),
        "test_images": len(x_test),
        "accuracy": round(accuracy_score(y_test, predicted), 4),
        "macro_f1": round(f1_score(y_test, predicted, average="macro"), 4),
        "seconds": round(time.perf_counter() - began, 2),
    }
    (results / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    ConfusionMatrixDisplay.from_predictions(y_test, predicted, cmap="Blues", colorbar=False)
    plt.title(f"UCI digits after {epoch} epochs: {metrics['accuracy']:.1%} right")
    plt.savefig(results / "confusion.png", dpi=120, bbox_inches="tight")
    print(json.dumps(metrics), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
