"""Do two trees of the package compute the same numbers, and how fast is one beside the other?"""
