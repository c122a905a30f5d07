"""The commands of `flashsale`, one file each. What they know they ask of the functions and views in sql/."""
