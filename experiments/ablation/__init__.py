"""Which model wins where: the models and settings of the SLAMS paper, in two protocols."""
