"""``python -m bhx_model.compat``: check against the published BrainHarmonix code, or load its weights."""

import sys

from bhx_model.compat.convert import main

if __name__ == "__main__":
    sys.exit(main())
