"""What a server keeps, as Python sees it: a module for each noun, joined in sdk/client.py."""
