"""From a config to a trained network: names become functions, composed plain and compiled once."""
