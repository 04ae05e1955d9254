"""
The private servers: PostgreSQL, Valkey and RabbitMQ as child processes.

Programs are found in wheels first, else on the system. Data lies in the checkout's `.orderflow`, or in a
throwaway folder.
"""
