"""``python -m bhx_model.train``: the command that trains one stage; see `bhx_model.training.train`."""

import sys

from bhx_model.training.train import main

if __name__ == "__main__":
    sys.exit(main())
