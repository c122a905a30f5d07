"""What `flashsale doctor` examines."""
