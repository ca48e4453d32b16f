"""Progress and interruption in a real kernel, with and without a browser."""

import contextlib
import os
import queue
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from fusedff.training import loop

TRAINING = """
import time
import jax, numpy as np
from fusedff.training import loop

def epoch(state, n):
    time.sleep({pause})
    return state._replace(params=state.params + 1), {{"loss": 1.0 / (n + 1), "n_eff": 0.9}}

result = loop.train(
    epoch, loop.TrainState(np.zeros(1), ()), {epochs}, name="fused training", settings={{}},
    checkpoint={checkpoint!r},
)
"""


@pytest.fixture
def kernel(request):
    """Run code in a kernel of its own, as a browser's (`indirect` parameter True) or as papermill's."""
    env = {key: value for key, value in os.environ.items() if key != "JPY_SESSION_NAME"}
    manager, client = start_new_kernel(env=env | ({"JPY_SESSION_NAME": "05.ipynb"} if request.param else {}))

    def run(code, interrupt_when=lambda outputs: False):
        """Everything the cell put out, oldest first; Ctrl-C is sent once `interrupt_when(outputs)`."""
        client.execute(code)
        outputs, sent, began = [], False, time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                message = client.get_iopub_msg(timeout=0.5)
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    return outputs
                outputs.append((message["msg_type"], message["content"]))
            assert time.monotonic() < began + 600, outputs
            if not sent and interrupt_when(outputs):
                manager.interrupt_kernel()
                sent = True

    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def texts(outputs):
    """What stood in the bar of a watched notebook, from first to last."""
    shown = [
        content["data"]["text/plain"] for kind, content in outputs if kind in ("display_data", "update_display_data")
    ]
    return [text for text in shown if text]


@pytest.mark.parametrize("kernel", [True], indirect=True)
def test_a_watched_notebook_gets_one_bar_that_moves(kernel, tmp_path):
    outputs = kernel(TRAINING.format(pause=0.2, epochs=5, checkpoint=None))
    assert [kind for kind, _ in outputs].count("display_data") == 1, "one output, drawn over itself"
    bars = texts(outputs)
    assert bars[0].startswith("fused training:   0%|")
    assert len(set(bars)) >= 4
    assert "5/5" in bars[-1]
    assert bars[-1].endswith("loss 0.2, n_eff 0.9")
    assert not [content for kind, content in outputs if kind == "stream"]


@pytest.mark.parametrize("kernel", [False], indirect=True)
def test_a_recorded_notebook_gets_plain_lines(kernel):
    outputs = kernel(TRAINING.format(pause=0.0, epochs=5, checkpoint=None))
    text = "".join(content["text"] for kind, content in outputs if kind == "stream")
    assert text.splitlines()[-1] == "fused training: 5/5, 0 s left, loss 0.2, n_eff 0.9"
    assert not texts(outputs)
    assert "\r" not in text


@pytest.mark.parametrize("kernel", [True, False], indirect=True, ids=["watched", "recorded"])
def test_interrupted_training_says_how_to_go_on_and_does(kernel, tmp_path):
    checkpoint = str(tmp_path / "checkpoint.safetensors")
    training = TRAINING.format(pause=1.0, epochs=40, checkpoint=checkpoint)
    outputs = kernel(training, interrupt_when=lambda outputs: Path(checkpoint).exists())
    (error,) = [content for kind, content in outputs if kind == "error"]
    assert error["ename"] == "Interrupted"
    (words,) = error["traceback"]
    done = int(words.split("interrupted with ")[1].split(" of 40")[0])
    assert 1 <= done < 40
    assert words == (
        f"fused training: interrupted with {done} of 40 epochs done, which {checkpoint} keeps; run this again to go on "
        "from there"
    )
    # the kernel lives, and the same cell ends what it began
    outputs = kernel(TRAINING.format(pause=0.0, epochs=40, checkpoint=checkpoint))
    assert not [content for kind, content in outputs if kind == "error"]
    (said,) = [
        content["text"] for kind, content in kernel("print(result.params, len(result.history))") if kind == "stream"
    ]
    assert said == "[40.] 40\n"


@pytest.mark.parametrize("kernel", [False], indirect=True)
def test_interrupted_work_without_a_checkpoint_says_that_it_begins_anew(kernel):
    code = """
import time
from fusedff.runtime import progress
with progress.bar("four free crystals", 100) as report:
    for n in range(100):
        time.sleep(0.2)
        report()
"""
    outputs = kernel(code, lambda outputs: any(kind == "stream" for kind, _ in outputs))
    (error,) = [content for kind, content in outputs if kind == "error"]
    (words,) = error["traceback"]
    assert words.startswith("four free crystals: interrupted, and nothing of it is kept.")


def test_interrupted_before_the_first_epoch_nothing_is_promised(tmp_path):
    assert "start anew" in loop._how_to_go_on("DiffTRe", 0, 30, tmp_path / "checkpoint")
