"""The engine: the public class, sessions, the scheduler and the sampler."""
