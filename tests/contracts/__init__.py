"""What every implementation of a seam must do, as tests to inherit."""
