"""Runs on Kubernetes as RayJobs of the KubeRay operator."""
