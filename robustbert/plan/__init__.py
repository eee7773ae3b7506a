"""What a job will be like before it has its nodes: every distinct process of it built by the real code, at any size."""
