"""What was trained, at work: prompt files, predictions, exports."""
