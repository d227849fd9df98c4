"""``python -m bhx_model.train``: the command that trains one stage; see `bhx_model.training.train`."""

import sys
from collections.abc import Sequence

from bhx_model.extras import how_to_install


def main(argv: Sequence[str] | None = None) -> int:
    """Train one stage; where PyTorch is not installed, say what to install."""
    try:
        from bhx_model.training import train
    except ModuleNotFoundError as error:
        if (sentence := how_to_install(error.name, ("model",))) is None:
            raise
        sys.exit(sentence)
    return train.main(argv)


if __name__ == "__main__":
    sys.exit(main())
