"""Jobs on Kubernetes through KubeRay's operator."""
