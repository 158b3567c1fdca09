"""Breast cancer among five hospitals of different size and case mix."""
