"""Everything around the model: config, data, training, evaluation, deployment, sweeps, reports."""

import warnings

# CompressAI imports torch_geometric, which compiles a function at import; the user can change neither.
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
