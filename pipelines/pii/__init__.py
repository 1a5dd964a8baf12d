"""Personal data in a text: e-mail addresses, phone numbers and IP addresses are masked."""
