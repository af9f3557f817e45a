"""Named nouns that the paper's figure does not show: config, losses, training, evaluation, files."""

import warnings

# CompressAI imports torch_geometric, which compiles a function at import; neither is for the user to mend.
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
