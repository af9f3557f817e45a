import pytest
import torch

from scripts.benchmarks.bitstream import Setting, compare, markdown
from tests.golden.make_golden import CHANNELS, edge_of
from tests.golden.make_golden import ONE_RATE as PRIORS

SETTINGS = [Setting("batch 2", batch=2), Setting("channels last", channels_last=True)]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("prior", PRIORS)
@torch.inference_mode()
def test_exact_coding_is_the_same_under_every_setting(prior):
    torch.manual_seed(0)
    edge = edge_of(prior)
    edge.update(scale_table=[0.11, 0.5, 1.0, 2.0, 4.0])
    rows, (y, strings, float_strings) = compare(edge, 3 * torch.randn(3, CHANNELS, 8, 4), SETTINGS, prior)
    assert [row["setting"] for row in rows] == [setting.name for setting in SETTINGS]
    assert all(row["images"] == 3 and row["exact: bytes"] == row["exact: y_hat"] == row["g_a"] == 0 for row in rows)
    assert strings == edge.entropy_model.compress(y) and len(float_strings) == 3
    assert markdown(rows).count("\n") == 3
