"""This machine: processor, memory, the memory plan, the machine profile, self-test results."""
