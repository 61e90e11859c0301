"""Optional: dry run (--check), search for values that are not finite, recompilation, profiling."""
