use fathom_kernels as _;
