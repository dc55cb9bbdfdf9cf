"""Sign-up, sign-in and the user's own account."""
