"""The AWS-compatible API: EC2's Client VPN, and of ACM, IAM, CloudWatch Logs and STS what goes with it.

The way of a request: ``app.py`` reads it, ``sigv4.py`` verifies its signature, ``parse.py`` makes parameters of it by
botocore's model of the operation (``models.py``), a handler (``ec2.py``, ``acm.py`` …) calls ``Operations``, and
``render.py`` writes the answer by the model again. So a handler never sees a wire format, and shapes cannot drift.
"""
