"""What training does to the shape over layers and steps: profiles, phases, contrasts, spikes and their warning."""
