"""python -m tune_cropshield"""

from tune_cropshield.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
