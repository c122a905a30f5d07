"""The checks of `flashsale doctor`, one file a subject."""
