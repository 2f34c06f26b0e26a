"""Outside judges: programs that none of us wrote accept what our channels send and what our simulators answer."""
