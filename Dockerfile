# The same as repo2docker makes of binder/: Python of runtime.txt, packages of requirements.txt, then postBuild.
#   docker build -t fusedff .
#   docker run --rm -p 8888:8888 fusedff
FROM python:3.11-slim
RUN useradd --create-home --uid 1000 jovyan
WORKDIR /home/jovyan
COPY binder/requirements.txt binder/
RUN pip install --no-cache-dir --require-hashes --requirement binder/requirements.txt
COPY --chown=jovyan . .
RUN bash binder/postBuild && chown jovyan .
USER jovyan
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--LabApp.default_url=/lab/tree/notebooks"]
