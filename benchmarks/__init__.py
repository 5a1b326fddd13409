"""What the performance page's numbers are measured with, side by side with the peers."""
