"""Masking of personal data in texts: e-mail addresses, telephone numbers and IP addresses."""
