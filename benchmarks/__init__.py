"""What Sentinel costs, as ratios against what it must beat, measured in one run. `make bench` runs all of them."""
