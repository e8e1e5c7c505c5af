"""What becomes of accepted requests when something breaks: each fault provoked under load, one a file.

HAProxy and Triton are started by what the tests start them with.
"""
