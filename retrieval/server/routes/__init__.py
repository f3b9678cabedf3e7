"""What each HTTP route answers."""
