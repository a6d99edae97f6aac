"""Where a run's parameters, metrics and files go beside its folder: TensorBoard, MLflow. Imports `data`."""
