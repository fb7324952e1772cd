"""Many runs at a time: what each is doing, where its output goes, and what a person sees of it."""
