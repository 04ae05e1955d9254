"""
The private servers: PostgreSQL, Valkey and RabbitMQ as child processes.

Their programs come from wheels, or else from the system. Their data is in the checkout's `.orderflow`, or in a
throwaway folder.
"""
