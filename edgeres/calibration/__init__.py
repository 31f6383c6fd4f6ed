"""From images to a calibration table: ranges, thresholds, searches and recovery."""
