"""What predict.py and demo.py share: finding an export, reading images, running files."""
