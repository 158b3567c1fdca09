"""Loans that go bad, among four lenders that each know one kind of loan."""
