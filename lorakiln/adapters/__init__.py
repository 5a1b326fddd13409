"""What is trained: small matrices beside the frozen layers of the base, and the files they travel in."""
