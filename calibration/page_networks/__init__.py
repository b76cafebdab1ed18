"""Train the small networks that look at a page before the model does.

They are trained on synthetic pages only, so their weights may be shipped.
`pulse_edge.page.orientation` runs them through OpenCV. Each asset below `pulse_edge/assets/` has
its command:

    layouts.onnx      python -m calibration.page_networks.layouts
    orientation.onnx  python -m calibration.page_networks.orientation
    mirrored.onnx     python -m calibration.page_networks.orientation --mirrored

`training_pages` draws the pages and degrades them as cameras and copiers do; `other_pictures` draws
what is not an ECG. Drawing takes about half a second a page on a core.
"""
